"""Charts as inline SVG: plain functions from numbers to markup, drawn for a phone's width and styled by the page."""
