"""Every figure of the notebooks: results over photographs here, and all those of the modules below.

Each function draws one figure from arrays, tensors, PIL images or samples, draws no random numbers, and
returns the figure without showing it. In a notebook, end the cell with `plt.show()`:

    plots.show_sample(sample)
    plt.show()

This displays it once, in JupyterLab, on Colab and under nbval alike, because the figure is not the value of
the cell's last line. In a script, save it and close it: `figure = plots.show_sample(sample)`,
`figure.savefig(...)`, `plt.close(figure)`. Call `use_style()` once before the first figure. A title left at
None is computed from the numbers where a figure has some to report.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
