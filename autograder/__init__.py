"""The instructors' tool: releases, grades and reports assignments; names none of them."""
