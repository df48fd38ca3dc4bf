"""Exemplar sets described and phrases scored on demand, batched across requests.

messages    what is sent and answered, and its schema
reading     a request's body: JSON, or a form with files
regions     its images and masks as the encoder takes them
line        who is let in, and the units that wait
engine      a batch of units: encoder, captioner, search
worker      the thread that takes batches from the line to the engine
part        the routes
"""
