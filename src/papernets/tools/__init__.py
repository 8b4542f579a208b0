"""Small helpers of the house: where things lie, how a file is written, which browser there is, what steers a library."""
