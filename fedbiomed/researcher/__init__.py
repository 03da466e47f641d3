"""The side that asks: experiments over the datasets of nodes. Begin with `fedbiomed.researcher.experiment.Experiment`."""
