"""Views: what can be said of a plan, an image or a store, as data and as text.

What enters: plans, images, step records, layer indexes. What leaves: plain rows (for ``--format json``) and text for a
terminal. A view starts nothing and changes nothing.
"""
