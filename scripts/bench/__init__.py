"""The comparison benchmark: Postern beside nginx, HAProxy and Envoy. README.md says what is measured and how."""
