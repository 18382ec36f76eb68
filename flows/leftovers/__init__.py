"""What a killed process leaves behind: how it is told from what is still at work."""
