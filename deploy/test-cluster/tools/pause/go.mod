module dev.foredeck/test-cluster/pause

go 1.26.0
