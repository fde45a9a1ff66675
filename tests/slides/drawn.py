"""Scans in the formats of other scanners, drawn from an image: as little of each format as its readers ask for.

Each says 0.5 µm per pixel and a 20x objective, has a second level of half the size where the format keeps levels,
and names a patient and dates where the format has a place for that. Sides of the image are multiples of 512.
"""

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

PATIENT = "Thessaly Quimby"
SIDE = 256

Pixels = npt.NDArray[np.uint8]


def halved(image: Pixels, factor: int) -> Pixels:
    """An image made smaller by the mean of squares."""
    h, w = image.shape[0] // factor, image.shape[1] // factor
    return np.asarray(image.reshape(h, factor, w, factor, 3).mean((1, 3)).round(), np.uint8)


def jpeg(image: Pixels, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0, **options)
    return buffer.getvalue()


def tiles_of(image: Pixels) -> list[Pixels]:
    """Its squares of 256 pixels, row by row, the last of each row and column filled up with white."""
    h, w = image.shape[:2]
    tiles = []
    for y in range(0, h, SIDE):
        for x in range(0, w, SIDE):
            tile = np.full((SIDE, SIDE, 3), 255, np.uint8)
            part = image[y : y + SIDE, x : x + SIDE]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(tile)
    return tiles


def mirax(folder: Path, image: Pixels) -> Path:
    """MIRAX: `m.mrxs`, a JPEG, and its folder of index and data files."""
    path, data_folder = folder / "m.mrxs", folder / "m"
    data_folder.mkdir()
    columns, rows, uuid = image.shape[1] // SIDE, image.shape[0] // SIDE, "0" * 32
    data, records = b"", []
    for level in range(2):
        step = 2**level
        places = [r * columns + c for r in range(0, rows, step) for c in range(0, columns, step)]
        level_records = []
        for place, tile in zip(places, tiles_of(halved(image, step)), strict=True):
            content = jpeg(tile)
            level_records.append((place, len(data), len(content), 0))
            data += content
        records.append(level_records)
    head = b"01.02" + uuid.encode()
    pointers, pages = [], b""
    first_page = len(head) + 8 + 4 * len(records)
    for level_records in records:
        at = first_page + len(pages)
        pointers.append(at)
        pages += struct.pack("<iiii", 0, at + 8, len(level_records), 0)
        pages += b"".join(struct.pack("<iiii", *r) for r in level_records)
    (data_folder / "Data0000.dat").write_bytes(data)
    (data_folder / "Index.dat").write_bytes(
        head + struct.pack("<ii", len(head) + 8, 0) + struct.pack(f"<{len(pointers)}i", *pointers) + pages
    )
    ini = (
        f"[GENERAL]\nSLIDE_ID={uuid}\nSLIDE_NAME={PATIENT}\nIMAGENUMBER_X={columns}\nIMAGENUMBER_Y={rows}\n"
        "OBJECTIVE_MAGNIFICATION=20\n[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=0\nINDEXFILE=Index.dat\n"
        "HIER_0_NAME=Slide zoom level\nHIER_0_COUNT=2\nHIER_0_VAL_0_SECTION=L0\nHIER_0_VAL_1_SECTION=L1\n"
        "[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n"
    )
    for level in range(2):
        ini += (
            f"[L{level}]\nOVERLAP_X=0\nOVERLAP_Y=0\nMICROMETER_PER_PIXEL_X={0.5 * 2**level}\n"
            f"MICROMETER_PER_PIXEL_Y={0.5 * 2**level}\nIMAGE_FILL_COLOR_BGR=16777215\nDIGITIZER_WIDTH={SIDE}\n"
            f"DIGITIZER_HEIGHT={SIDE}\nIMAGE_CONCAT_FACTOR={level}\nIMAGE_FORMAT=JPEG\n"
        )
    (data_folder / "Slidedat.ini").write_text(ini)
    path.write_bytes(jpeg(image[::16, ::16]))
    return path


def vms(folder: Path, image: Pixels) -> Path:
    """Hamamatsu VMS: `v.vms`, a text file, beside the JPEGs that it names."""
    (folder / "v_0.jpg").write_bytes(jpeg(image, restart_marker_blocks=16))
    (folder / "v_map.jpg").write_bytes(jpeg(image[::8, ::8], restart_marker_blocks=4))
    (folder / "v_macro.jpg").write_bytes(jpeg(image[::8, ::8]))
    height, width = image.shape[:2]
    path = folder / "v.vms"
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=v_0.jpg\nMapFile=v_map.jpg\n"
        f"MacroImage=v_macro.jpg\nPhysicalWidth={width * 500}\nPhysicalHeight={height * 500}\nSourceLens=20\n"
        f"PhysicalMacroWidth=100\nPhysicalMacroHeight=100\nReference={PATIENT}\n"
    )
    return path


def bif(folder: Path, image: Pixels) -> Path:
    """Ventana BIF: `b.bif`, a BigTIFF whose XMP says how its tiles join, with a label of one colour."""
    columns, rows = image.shape[1] // SIDE, image.shape[0] // SIDE

    def number(column: int, row: int) -> int:
        """Tiles are counted from 1, from below, to and fro."""
        up = rows - 1 - row
        return up * columns + (column if up % 2 == 0 else columns - 1 - column) + 1

    joints = [("RIGHT", number(c, r), number(c + 1, r)) for r in range(rows) for c in range(columns - 1)]
    joints += [("UP", number(c, r), number(c, r - 1)) for r in range(1, rows) for c in range(columns)]
    joined = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{d}" Tile1="{a}" Tile2="{b}" OverlapX="0" OverlapY="0"/>'
        for d, a, b in joints
    )
    scan = f'<iScan Magnification="20" ScanRes="0.5" UnitNumber="1" BuildVersion="3" BuildDate="04/03/61" UserName="{PATIENT}"/>'
    encode = (
        f'<EncodeInfo Ver="2"><SlideInfo>{scan}</SlideInfo><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'NumRows="{rows}" NumCols="{columns}" Width="{SIDE}" Height="{SIDE}" Pos-X="0" Pos-Y="0">{joined}</ImageInfo>'
        '</SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    path = folder / "b.bif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        label = np.full((200, 100, 3), (1, 2, 3), np.uint8)
        tags = [(700, 1, len(scan), scan.encode(), True)]
        tif.write(label, photometric="rgb", description="Label_Image", metadata=None, extratags=tags)
        for level in range(2):
            tif.write(
                halved(image, 2**level), tile=(SIDE, SIDE), photometric="rgb", compression="jpeg", compressionargs={"level": 95},
                description=f"level={level} mag={20 // 2**level} quality=95", metadata=None,
                extratags=[(700, 1, len(encode), encode.encode(), True)] if level == 0 else [],
            )  # fmt: skip
    return path


def scn(folder: Path, image: Pixels) -> Path:
    """Leica SCN: `l.scn`, a BigTIFF of a macro image and of the scanned area, placed on the glass by its XML."""
    height, width = (n * 500 for n in image.shape[:2])  # nanometres
    xml = (
        '<?xml version="1.0" encoding="utf-8"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="{PATIENT}" uuid="urn:uuid:0" sizeX="{3 * width}" sizeY="{2 * height}"><barcode>{PATIENT}</barcode>'
    )
    areas = (("macro", 3 * width, 2 * height, 0, 0, 0, 1), ("area", width, height, width, height // 2, 1, 2))
    for name, size_x, size_y, x, y, first, levels in areas:
        sides = [(image.shape[1] // 2**i, image.shape[0] // 2**i) for i in range(levels)] if first else [(96, 64)]
        dims = "".join(
            f'<dimension sizeX="{w}" sizeY="{h}" r="{i}" ifd="{first + i}"/>' for i, (w, h) in enumerate(sides)
        )
        xml += (
            f'<image name="{name}" uuid="urn:uuid:{first}"><creationDate>1961-03-04T00:00:00Z</creationDate>'
            f'<device model="Leica SCN400" version="1"/><pixels sizeX="{sides[0][0]}" sizeY="{sides[0][1]}">{dims}</pixels>'
            f'<view sizeX="{size_x}" sizeY="{size_y}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings>'
            "<objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
            "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            "</illuminationSettings></scanSettings></image>"
        )
    path = folder / "l.scn"
    options = {
        "tile": (SIDE, SIDE), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 95},
        "resolution": (20000, 20000), "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        macro = np.full((64, 96, 3), (1, 2, 3), np.uint8)
        tif.write(macro, description=xml + "</collection></scn>", metadata=None, **options)
        for level in range(2):
            tif.write(halved(image, 2**level), description="", metadata=None, **options)
    return path


def ndpi(folder: Path, image: Pixels) -> Path:
    """Hamamatsu NDPI: `n.ndpi`, a TIFF with wide offsets whose levels and macro image are one JPEG each, with restart markers."""
    pages = [(image, 20.0), (halved(image, 2), 10.0), (np.full((64, 128, 3), (1, 2, 3), np.uint8), -1.0)]
    content, directories = bytearray(struct.pack("<2sHQ", b"II", 42, 0)), []
    for pixels, lens in pages:
        height, width = pixels.shape[:2]
        data = jpeg(pixels, restart_marker_blocks=SIDE // 8) if lens > 0 else jpeg(pixels)
        scan = data.index(b"\xff\xda")
        scan += 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
        starts = [scan, *(i + 2 for i in range(scan, len(data) - 1) if data[i] == 255 and 0xD0 <= data[i + 1] <= 0xD7)]
        per_cm = int(2e4 * abs(lens) / 20)
        tags: dict[int, tuple[int, int, bytes]] = {  # type, count and value: LONG 4, SHORT 3, ASCII 2, RATIONAL 5, FLOAT 11
            256: (4, 1, struct.pack("<I", width)), 257: (4, 1, struct.pack("<I", height)),
            258: (3, 3, struct.pack("<3H", 8, 8, 8)), 259: (3, 1, struct.pack("<H", 7)), 262: (3, 1, struct.pack("<H", 6)),
            271: (2, 10, b"Hamamatsu\0"), 272: (2, 11, b"NanoZoomer\0"), 273: (4, 1, struct.pack("<I", len(content))),
            277: (3, 1, struct.pack("<H", 3)), 278: (4, 1, struct.pack("<I", height)), 279: (4, 1, struct.pack("<I", len(data))),
            282: (5, 1, struct.pack("<2I", per_cm, 1)), 283: (5, 1, struct.pack("<2I", per_cm, 1)),
            296: (3, 1, struct.pack("<H", 3)), 306: (2, 20, b"1961:03:04 00:00:00\0"), 65420: (4, 1, struct.pack("<I", 1)),
            65421: (11, 1, struct.pack("<f", lens)), 65422: (9, 1, bytes(4)), 65423: (9, 1, bytes(4)), 65424: (9, 1, bytes(4)),
            65426: (4, len(starts), struct.pack(f"<{len(starts)}I", *starts)),
            65427: (2, len(PATIENT) + 1, PATIENT.encode() + b"\0"),
        }  # fmt: skip
        if lens < 0:
            del tags[65426]
        content += data
        entries = b""
        for tag, (kind, count, value) in tags.items():
            if len(value) > 4:
                entries += struct.pack("<HHII", tag, kind, count, len(content))
                content += value
            else:
                entries += struct.pack("<HHI4s", tag, kind, count, value)
        directories.append((len(content), len(tags)))
        content += struct.pack("<H", len(tags)) + entries + bytes(8) + bytes(4 * len(tags))
    pointers = [4, *(at + 2 + 12 * n for at, n in directories[:-1])]
    for pointer, (at, _) in zip(pointers, directories, strict=True):
        struct.pack_into("<Q", content, pointer, at)
    path = folder / "n.ndpi"
    path.write_bytes(content)
    return path


def philips(folder: Path, image: Pixels) -> Path:
    """Philips TIFF: `p.tiff`, whose XML says the scale of each level, and whose levels are filled up to whole tiles."""
    levels = [image, halved(image, 2), halved(image, 8)]
    represented = "".join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        f'PMSVR="IDoubleArray">"{5e-4 * step}" "{5e-4 * step}"</Attribute></DataObject>'
        for step in (1, 2, 8)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">PHILIPS</Attribute>'
        f'<Attribute Name="PIM_DP_UFS_BARCODE" Group="0x301D" Element="0x1002" PMSVR="IString">{PATIENT}</Attribute>'
        '<Attribute Name="DICOM_ACQUISITION_DATETIME" Group="0x0008" Element="0x002A" PMSVR="IString">19610304000000.0'
        "</Attribute>"
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" '
        'PMSVR="IString">WSI</Attribute><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">"0.0005" "0.0005"</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" '
        f'Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray"><Array>{represented}</Array></Attribute></DataObject>'
        "</Array></Attribute></DataObject>"
    )
    path = folder / "p.tiff"
    with tifffile.TiffWriter(path) as tif:
        for number, level in enumerate(levels):
            filled = [(0, -n % SIDE) for n in level.shape[:2]]
            tif.write(
                np.pad(level, (*filled, (0, 0)), constant_values=255), tile=(SIDE, SIDE), photometric="rgb", metadata=None,
                compression="jpeg", compressionargs={"level": 95}, software="Philips DP v1.0", subfiletype=int(number > 0),
                description=xml if number == 0 else f"level={number}",
            )  # fmt: skip
        for name in ("Macro", "Label"):
            tif.write(np.full((64, 128, 3), (1, 2, 3), np.uint8), photometric="rgb", description=name, metadata=None)
    return path


def qptiff(folder: Path, image: Pixels) -> Path:
    """Akoya QPTIFF of a brightfield scan: `q.qptiff`, with thumbnail, macro image and label between and behind its levels."""

    def said(kind: str) -> str:
        return (
            f'<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription><ImageType>{kind}</ImageType>'
            f"<SlideID>{PATIENT}</SlideID><StudyName>MRN-4711</StudyName><Objective>20x</Objective></PerkinElmer-QPI-ImageDescription>"
        )

    plain = np.full((64, 128, 3), (1, 2, 3), np.uint8)
    pages = [
        ("FullResolution", image, 1), ("Thumbnail", halved(image, 8), 8), ("ReducedResolution", halved(image, 2), 2),
        ("Overview", plain, 50), ("Label", plain, 50),
    ]  # fmt: skip
    path = folder / "q.qptiff"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for kind, pixels, step in pages:
            laid = {"tile": (SIDE, SIDE)} if kind.endswith("Resolution") else {"rowsperstrip": 16}
            tif.write(
                pixels, photometric="rgb", compression="jpeg", compressionargs={"level": 95}, metadata=None,
                software="PerkinElmer-QPI", description=said(kind), resolution=(2e4 / step, 2e4 / step),
                resolutionunit="CENTIMETER", **laid,
            )  # fmt: skip
    return path
