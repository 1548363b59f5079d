"""The HTTP server's parts: what may come in, who may ask, the one thread that runs the model, and what is answered.

Imported by ``llava_pose.server`` alone, which puts them together.
"""
