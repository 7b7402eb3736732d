"""What an inspection reports: findings, statistics, preview."""
