"""The leakage audit: does a paired data set hold what its parameters say, and nothing else?"""
