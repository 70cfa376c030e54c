"""CPCAE-kNN: an autoencoder's residual, its deep features, their nearest neighbours.

Saeedi, Giusti, VISAPP 2022.
"""

import zlib
from itertools import islice
from typing import Annotated, Any, Literal, final

import torch
from torch import Tensor, nn

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.backbones.cached import CachedExtractor
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.errors import ConfigError
from anomaly_lab.estimators.base import Estimator
from anomaly_lab.estimators.reduce import Standardizer
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.types import SAME_RUN, Prediction, TrainBatch, Training


@final
class CpcaeKnn(AnomalyMethod):
    """Trains the autoencoder on normal images, then stores the embedded residual of each (sections 3.1, 3.2).

    The autoencoder may see the images smaller than they are; the residual is of the images as they are, and
    the backbone takes it in at that size, large ones one after the other.

    The residuals of images that the autoencoder has seen are smaller than those of other normal images. With
    ``residual_folds`` F > 1 each of F further autoencoders leaves a part of the training images out, and a
    training residual is that of the one that never saw its image; test images are reconstructed by the one
    trained on all.

    Args:
        autoencoder: the conditional patch autoencoder.
        backbone: embeds the residual, three channels in [0, 1], as if it were an image.
        cache: where features are kept.
        estimator: scores the standardised embeddings.
        residual: ``abs`` |x - x'| or ``squared`` (x - x')^2 (docs/methods/cpcae_knn.md, note 4).
        residual_folds: 1 as in the paper, or the number of further autoencoders.
        learning_rate: of Adam.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        autoencoder: PatchAutoencoder,
        backbone: FeatureExtractor,
        cache: Annotated[Cache, SAME_RUN],
        estimator: Estimator,
        residual: Literal["abs", "squared"],
        residual_folds: int,
        learning_rate: float,
    ) -> None:
        super().__init__()
        if learning_rate <= 0 or residual_folds < 1:
            given = f"model.learning_rate={learning_rate}, model.residual_folds={residual_folds}"
            raise ConfigError(f"{given}: give a rate above 0 and at least 1 fold")
        self.autoencoder = autoencoder
        self.backbone = backbone.vectors()
        self.features = CachedExtractor(backbone, cache)
        others = residual_folds if residual_folds > 1 else 0
        self.left_out: Any = nn.ModuleList(autoencoder.another() for _ in range(others))
        self.partial = others > 0  # no image of a batch may be for one of them
        self.standardizer = Standardizer()
        self.estimator = estimator
        self.residual = residual
        self.learning_rate = learning_rate

    def check_training(self, training: Training) -> None:
        """Raise ConfigError for folds that could not tell whose image they see."""
        if len(self.left_out) and training.augmented:
            way_out = "give data.augment=null, or 1"
            raise ConfigError(f"model.residual_folds: an augmented image hides whose it is; {way_out}")

    def setup(self, stage: str) -> None:
        """Load pretrained weights before a training starts."""
        if stage == "fit":
            self.backbone.load_pretrained()

    def forward(self, image: Tensor) -> Prediction:
        """Return the residual, averaged over colours, and the score of its embedding (equation 4)."""
        residual = self._residual(image, self.autoencoder)
        return Prediction(
            residual.mean(dim=1), self.estimator.score(self.standardizer(self._vectors(residual)))
        )

    def embed(self, image: Tensor) -> Tensor:
        """Return the standardised embeddings of the residuals, (B, D) float32."""
        embedding: Tensor = self.standardizer(self._vectors(self._residual(image, self.autoencoder)))
        return embedding

    def latents(self, image: Tensor) -> dict[str, Tensor]:
        """Return the autoencoder's latent vectors, joined over the patches (Figure 6a)."""
        return {"latent": self.autoencoder.latent(image)}

    def panels(self, image: Tensor) -> dict[str, Tensor]:
        """Return the reconstruction."""
        return {"reconstruction": self.autoencoder.reconstruct(image)}

    def _residual(self, image: Tensor, autoencoder: PatchAutoencoder) -> Tensor:
        difference = autoencoder.reconstruct(image).sub_(image).abs_()  # in place: images may be large
        return difference if self.residual == "abs" else difference.square_()

    def _vectors(self, residual: Tensor) -> Tensor:
        return torch.cat(self.features(residual), dim=1)

    # The signature is Lightning's.
    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the losses of all autoencoders, summed: they share no weight, so each learns as if alone."""
        loss = self.autoencoder.loss(batch.clean)
        if not self.left_out:
            return loss
        folds = self._folds(batch.clean)  # which waits for the device
        for fold, autoencoder in enumerate(self.left_out):
            if (more := exchange.over_some(batch.clean, folds != fold, autoencoder.loss)) is not None:
                loss = loss + more
        return loss

    def _folds(self, image: Tensor) -> Tensor:
        """Return which autoencoder never sees an image, by its content: (B,) int64."""
        content = (image * 255).round().to(torch.uint8).cpu().numpy()
        checks = [zlib.crc32(one.tobytes()) % max(1, len(self.left_out)) for one in content]
        return torch.tensor(checks, device=image.device)

    def on_train_epoch_end(self) -> None:
        """After the last step, store the embedded residuals of all training images."""
        if self.trainer.global_step < self.plan.steps:
            return
        self.eval()
        # As Lightning does in a test step.
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            # Of several ranks each takes every so many batches.
            own = islice(self.plan.normals, here.rank(), None, here.size())
            found = [self._training_vectors(image.to(self.device)) for image in own]
            vectors = torch.cat(exchange.in_turn(found))
            with torch.autocast(vectors.device.type, enabled=False):
                self.estimator.fit(self.standardizer.fit(vectors)(vectors))
        self.train()

    def _training_vectors(self, image: Tensor) -> Tensor:
        residual = self._residual(image, self.autoencoder)
        folds = self._folds(image)
        for fold, autoencoder in enumerate(self.left_out):
            if (unseen := folds == fold).any():
                residual[unseen] = self._residual(image[unseen], autoencoder)
        return self._vectors(residual)

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate; the paper names no optimiser (docs/methods/cpcae_knn.md, note 3)."""
        learned = [*self.autoencoder.parameters(), *self.left_out.parameters()]
        return torch.optim.Adam(learned, self.learning_rate)
