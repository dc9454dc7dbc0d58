//! Small numbers that name things of a [`Plan`](crate::config::plan::Plan): indices into its tables, typed so that two
//! cannot be swapped.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u16);

        impl $name {
            /// The position in the table that this id names.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

id!(
    /// One pinned executor; index into the process's shards.
    ShardId
);
id!(
    /// Index into `Plan::listeners`.
    ListenerId
);
id!(
    /// Index into `Plan::routes`.
    RouteId
);
id!(
    /// Index into `Plan::upstreams`.
    UpstreamId
);
