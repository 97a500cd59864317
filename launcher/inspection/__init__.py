"""A data set as a table for the terminal and as one page, from what jobs.inspect_data found."""
