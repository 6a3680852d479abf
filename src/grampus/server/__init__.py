"""One server of a cluster: how its folder comes into the cluster, and what runs in its process."""
