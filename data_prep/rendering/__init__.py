"""Shapes, scenes and rays: pictures of objects whose poses are known."""
