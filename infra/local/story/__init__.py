"""`make story`: a month in which everything happens that the platform is there for."""
