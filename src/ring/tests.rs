//! The ring against real sockets, driven by the smallest executor there is.
