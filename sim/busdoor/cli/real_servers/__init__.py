"""Commands that meet real servers, or stand in for one."""
