"""What MLflow holds of a model: runs, versions, champions and the recorded batches.

Decides how results are stored and who is champion. The only room that imports MLflow.
"""
