"""The stages of a job on a Ray cluster: the same bytes as in one process.

    options   how it is spread
    worker    what runs there: one process with one session, for parts of photos and of units
    driver    what is asked of the workers, in what order, and what is done when one is lost

Ray is imported only when `driver` is used.
"""
