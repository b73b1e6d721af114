"""EdiVal's scores without a model: the nine rules as published and mended, and the arithmetic of consistency."""
