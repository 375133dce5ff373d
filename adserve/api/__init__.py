"""The JSON edge, one file a resource: decodes, asks a room, encodes. No rule of the business stands here.

A resource is a class that gets what it needs in its constructor; its methods handle calls, and `operations` lists
them for the one table that makes the routes and their description.
"""
