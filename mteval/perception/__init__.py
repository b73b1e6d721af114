"""What machines see in an image, behind small protocols; back ends are loaded lazily, by registry name (base.py)."""
