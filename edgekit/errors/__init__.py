"""Every error that a person can meet, in one tree.

    EdgekitError                    exit 1    HTTP 500
    |-- UsageError                  exit 2    400   the command line or a setting is wrong
    |   |-- MissingExtra            exit 3    500   a verb needs a part that is not installed
    |   `-- BadTask                 exit 4    400   a file of questions is not one
    |-- SystemRefused               exit 5    500   a full disk, no permission, or what else the system says no to
    |-- CheckpointError             exit 10   500   the source model cannot be read
    |   |-- CheckpointNotFound      exit 11
    |   |-- CorruptCheckpoint       exit 12
    |   |-- UnsupportedCheckpoint   exit 13
    |   |-- UnknownFamily           exit 14
    |   |-- MissingTensor           exit 15
    |   |-- UnexpectedTensor        exit 16
    |   |-- ShapeMismatch           exit 17
    |   `-- AdapterMismatch         exit 18
    |-- ExportError                 exit 20   500   the bundle cannot be made
    |   |-- OutputExists            exit 21
    |   |-- DiskFull                exit 22
    |   |-- VerificationFailed      exit 23
    |   |-- BudgetTooSmall          exit 24
    |   |-- CalibrationTooShort     exit 25
    |   `-- QualityTooLow           exit 26
    |-- BundleError                 exit 30   500   the bundle cannot be used
    |   |-- NotABundle              exit 31
    |   |-- UnsupportedFormat       exit 32
    |   |-- CorruptBundle           exit 33
    |   |-- UnsafePath              exit 34
    |   `-- WrongBase               exit 35
    |-- RequestError                exit 40   400   one request is wrong; the server keeps serving
    |   |-- InvalidRequest          exit 41   400
    |   |-- ContextOverflow         exit 42   400
    |   |-- UnknownModel            exit 43   404
    |   |-- TemplateError           exit 44   400
    |   |-- RequestTooLarge         exit 45   413
    |   |-- RouteError              exit 46   404/403/405/415
    |   |-- Unauthorised            exit 47   401
    |   |-- Forbidden               exit 48   403
    |   `-- QuotaExceeded           exit 49   429
    |-- ServerError                 exit 50   500   the agent cannot serve right now
    |   |-- Overloaded              exit 51   503
    |   |-- ShuttingDown            exit 52   503
    |   |-- AddressInUse            exit 53
    |   `-- StorageFailed           exit 54   503
    `-- SyncError                   exit 60   502   an update cannot be published, fetched or installed
        |-- Untrusted               exit 61         signatures, versions or dates say no
        |-- TrustLost               exit 62         the device's own memory of what it trusts is damaged
        |-- Unreachable             exit 63         no repository answers
        |   |-- NotInRepository     exit 64
        |   `-- NotAdmitted         exit 76         it wants another user name and password
        |-- CorruptRelease          exit 65         bytes are not what was signed
        |   `-- UnsupportedRelease  exit 66
        |-- Refused                 exit 67   409   signed and whole, and yet not for this device now
        |   `-- FailedTrial         exit 68   409
        |-- NoSpace                 exit 69   507
        |-- Busy                    exit 70   409   another updater is at work
        |-- NotEnrolled             exit 71   409
        |-- PublishError            exit 72         the repository cannot be written so
        |   `-- KeyUnavailable      exit 73
        |-- RolloutWaits            exit 74         too few devices have reported yet
        `-- RolloutStopped          exit 75         it failed on too many devices

A class's docstring is the sentence that a person reads; its fields fill the blanks. `hint` says
what to do next. Exit 130 is Ctrl-C. Anything that is not an `EdgekitError` is a bug of ours.
"""

from edgekit.errors.base import EdgekitError as EdgekitError
from edgekit.errors.commands import AdapterMismatch as AdapterMismatch
from edgekit.errors.commands import BadTask as BadTask
from edgekit.errors.commands import BudgetTooSmall as BudgetTooSmall
from edgekit.errors.commands import BundleError as BundleError
from edgekit.errors.commands import CalibrationTooShort as CalibrationTooShort
from edgekit.errors.commands import CheckpointError as CheckpointError
from edgekit.errors.commands import CheckpointNotFound as CheckpointNotFound
from edgekit.errors.commands import CorruptBundle as CorruptBundle
from edgekit.errors.commands import CorruptCheckpoint as CorruptCheckpoint
from edgekit.errors.commands import DiskFull as DiskFull
from edgekit.errors.commands import ExportError as ExportError
from edgekit.errors.commands import MissingExtra as MissingExtra
from edgekit.errors.commands import MissingTensor as MissingTensor
from edgekit.errors.commands import NotABundle as NotABundle
from edgekit.errors.commands import OutputExists as OutputExists
from edgekit.errors.commands import QualityTooLow as QualityTooLow
from edgekit.errors.commands import ShapeMismatch as ShapeMismatch
from edgekit.errors.commands import SystemRefused as SystemRefused
from edgekit.errors.commands import UnexpectedTensor as UnexpectedTensor
from edgekit.errors.commands import UnknownFamily as UnknownFamily
from edgekit.errors.commands import UnsafePath as UnsafePath
from edgekit.errors.commands import UnsupportedCheckpoint as UnsupportedCheckpoint
from edgekit.errors.commands import UnsupportedFormat as UnsupportedFormat
from edgekit.errors.commands import UsageError as UsageError
from edgekit.errors.commands import VerificationFailed as VerificationFailed
from edgekit.errors.commands import WrongBase as WrongBase
from edgekit.errors.serving import AddressInUse as AddressInUse
from edgekit.errors.serving import ContextOverflow as ContextOverflow
from edgekit.errors.serving import Forbidden as Forbidden
from edgekit.errors.serving import InvalidRequest as InvalidRequest
from edgekit.errors.serving import Overloaded as Overloaded
from edgekit.errors.serving import QuotaExceeded as QuotaExceeded
from edgekit.errors.serving import RequestError as RequestError
from edgekit.errors.serving import RequestTooLarge as RequestTooLarge
from edgekit.errors.serving import RouteError as RouteError
from edgekit.errors.serving import ServerError as ServerError
from edgekit.errors.serving import ShuttingDown as ShuttingDown
from edgekit.errors.serving import StorageFailed as StorageFailed
from edgekit.errors.serving import TemplateError as TemplateError
from edgekit.errors.serving import Unauthorised as Unauthorised
from edgekit.errors.serving import UnknownModel as UnknownModel
from edgekit.errors.updates import Busy as Busy
from edgekit.errors.updates import CorruptRelease as CorruptRelease
from edgekit.errors.updates import FailedTrial as FailedTrial
from edgekit.errors.updates import KeyUnavailable as KeyUnavailable
from edgekit.errors.updates import NoSpace as NoSpace
from edgekit.errors.updates import NotAdmitted as NotAdmitted
from edgekit.errors.updates import NotEnrolled as NotEnrolled
from edgekit.errors.updates import NotInRepository as NotInRepository
from edgekit.errors.updates import PublishError as PublishError
from edgekit.errors.updates import Refused as Refused
from edgekit.errors.updates import RolloutStopped as RolloutStopped
from edgekit.errors.updates import RolloutWaits as RolloutWaits
from edgekit.errors.updates import SyncError as SyncError
from edgekit.errors.updates import TrustLost as TrustLost
from edgekit.errors.updates import Unreachable as Unreachable
from edgekit.errors.updates import UnsupportedRelease as UnsupportedRelease
from edgekit.errors.updates import Untrusted as Untrusted
