"""What Holdfast decides: contracts, training, drift, gate. Nothing here imports Prefect."""
