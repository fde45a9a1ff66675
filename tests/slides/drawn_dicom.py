"""A DICOM whole-slide image, drawn: one file a level, JPEG tiles in full, what readers ask for and a patient's name.

Attributes are those of the VL Whole Slide Microscopy Image (DICOM PS3.3, A.32.8).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from tests.slides.drawn import PATIENT, SIDE, halved, jpeg, tiles_of


def dicom(folder: Path, image: npt.NDArray[np.uint8]) -> Path:
    """`d0.dcm`, level 0, and `d1.dcm`, half its size: 0.5 µm per pixel and a 20x objective."""
    common = {k: generate_uid() for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for level in range(2):
        data = _dataset(halved(image, 2**level), 0.5 * 2**level, level, common)
        data.save_as(folder / f"d{level}.dcm", enforce_file_format=True)
    return folder / "d0.dcm"


def _part(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def _code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return _part(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _dataset(image: npt.NDArray[np.uint8], mpp: float, level: int, common: dict[str, str]) -> Dataset:
    height, width = image.shape[:2]
    frames = [jpeg(tile) for tile in tiles_of(image)]
    kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"] if level else ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    (data,) = _part(
        **common, SOPClassUID=VLWholeSlideMicroscopyImageStorage, SOPInstanceUID=generate_uid(), Modality="SM",
        PositionReferenceIndicator="SLIDE_CORNER", PatientName=PATIENT.replace(" ", "^"), PatientID=PATIENT,
        PatientBirthDate="19610304", PatientSex="F", StudyDate="19610304", StudyTime="000000", AccessionNumber="", StudyID="",
        ReferringPhysicianName="", SeriesNumber=1, InstanceNumber=level + 1, Manufacturer=PATIENT, ManufacturerModelName="x",
        DeviceSerialNumber="1", SoftwareVersions="1", AcquisitionDateTime="19610304000000", ContentDate="19610304",
        ContentTime="000000", ContainerIdentifier=PATIENT, IssuerOfTheContainerIdentifierSequence=[],
        AcquisitionContextSequence=[], ContainerTypeCodeSequence=_code("433466003", "SCT", "Microscope slide"), ImageType=kind,
        SpecimenDescriptionSequence=_part(
            SpecimenIdentifier="s", SpecimenUID=generate_uid(), IssuerOfTheSpecimenIdentifierSequence=[],
            SpecimenPreparationSequence=[],
        ),
        SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422", PlanarConfiguration=0, Rows=SIDE, Columns=SIDE,
        BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, NumberOfFrames=len(frames),
        TotalPixelMatrixColumns=width, TotalPixelMatrixRows=height, TotalPixelMatrixFocalPlanes=1,
        ImagedVolumeWidth=width * mpp / 1000, ImagedVolumeHeight=height * mpp / 1000, ImagedVolumeDepth=1.0,
        DimensionOrganizationType="TILED_FULL", BurnedInAnnotation="NO", SpecimenLabelInImage="NO", FocusMethod="AUTO",
        ExtendedDepthOfField="NO", LossyImageCompression="01", LossyImageCompressionRatio=10,
        LossyImageCompressionMethod="ISO_10918_1", VolumetricProperties="VOLUME", ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        DimensionOrganizationSequence=_part(DimensionOrganizationUID=generate_uid()),
        TotalPixelMatrixOriginSequence=_part(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0),
        NumberOfOpticalPaths=1,
        OpticalPathSequence=_part(
            OpticalPathIdentifier="1", ObjectiveLensPower=20.0,
            IlluminationTypeCodeSequence=_code("111744", "DCM", "Brightfield illumination"),
            IlluminationColorCodeSequence=_code("414298005", "SCT", "Full Spectrum"),
        ),
        SharedFunctionalGroupsSequence=_part(
            PixelMeasuresSequence=_part(PixelSpacing=[mpp / 1000, mpp / 1000], SliceThickness=1.0),
            WholeSlideMicroscopyImageFrameTypeSequence=_part(FrameType=kind),
            OpticalPathIdentificationSequence=_part(OpticalPathIdentifier="1"),
        ),
        PixelData=encapsulate(frames),
    )  # fmt: skip
    data["PixelData"].is_undefined_length = True
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data
