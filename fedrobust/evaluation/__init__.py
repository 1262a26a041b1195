"""What came of a round. The only place, besides the attackers' own side, that knows who is malicious."""
