"""Uploads of creatives: foreign bytes become a rendition of ours, or are refused with a reason.

Nothing decodes a foreign byte but a child process that can open no file and no socket, start no process, and has bounds
on memory, time and what it writes. What is served was written by that child from pixels and packets, never copied.
"""
