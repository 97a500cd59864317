"""Tests of images and container runtimes, with the real tools and no registry but our own."""
