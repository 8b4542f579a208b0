"""Which one should I use? Eight ways to a smaller network, on one network and one data set."""
