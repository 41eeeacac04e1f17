# Every figure and table of the project, and one page with all of them: figures/out/report.html.
.PHONY: figures
figures:
	jaxcost figures
