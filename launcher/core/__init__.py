"""Standard-library foundation that launcher, jobs and rdt share."""
