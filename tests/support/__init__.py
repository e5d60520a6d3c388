"""What the tests share: backends, peers, protocols that record, and the transport contract."""
