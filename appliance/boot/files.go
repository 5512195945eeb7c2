package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names in the boot directory.
const (
	fileKernel    = "vmlinuz"
	fileInitramfs = "initramfs.cpio.zst"
	fileManifest  = "manifest.json"
	fileShim      = "shimx64.efi"
	fileGRUB      = "grubx64.efi" // shim asks for it beside itself
	fileSNPOnly   = "snponly.efi"
	fileIPXE      = "ipxe.efi"
	fileUndionly  = "undionly.kpxe"
)

// loaderFiles are kept in memory (5 MB) and served over TFTP and HTTP; GRUB belongs to shim.
var loaderFiles = []string{fileShim, fileGRUB, fileSNPOnly, fileIPXE, fileUndionly}

// loaderFile is the file that a firmware loads for each loader.
var loaderFile = map[Loader]string{
	LoaderUndionly: fileUndionly,
	LoaderShim:     fileShim,
	LoaderSNPOnly:  fileSNPOnly,
	LoaderIPXE:     fileIPXE,
}

// Files are the boot files, checked. Immutable after OpenFiles.
type Files struct {
	dir     string
	loaders map[string][]byte
}

// manifest is what the recipe of the boot files notes of each.
type manifest struct {
	Files []struct {
		Name   string `json:"name"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
}

// ErrFiles is wrapped by every complaint of OpenFiles.
var ErrFiles = errors.New("the boot files are not complete")

// remedy tells a person what to do about ErrFiles.
const remedy = "make them with `make assets initramfs` and give their folder to `seedbed serve --boot-dir`"

// OpenFiles reads and checks the boot directory: every file is there and, where manifest.json lists it, has the SHA-256
// noted. All complaints come in one error.
func OpenFiles(dir string) (*Files, error) {
	sums, err := readManifest(filepath.Join(dir, fileManifest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %s", ErrFiles, err, remedy)
	}
	f := &Files{dir: dir, loaders: make(map[string][]byte)}
	var complaints []string
	for _, name := range append(slices.Clone(loaderFiles), fileKernel, fileInitramfs) {
		b, err := readSummed(filepath.Join(dir, name), sums[name], slices.Contains(loaderFiles, name))
		if err != nil {
			complaints = append(complaints, err.Error())
			continue
		}
		if b != nil {
			f.loaders[name] = b
		}
	}
	if complaints != nil {
		return nil, fmt.Errorf("%w: %s; %s", ErrFiles, strings.Join(complaints, ", "), remedy)
	}
	return f, nil
}

// readManifest returns the noted sums by name; none when there is no manifest.
func readManifest(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	sums := make(map[string]string)
	for _, f := range m.Files {
		sums[f.Name] = f.SHA256
	}
	return sums, nil
}

// readSummed checks one file against its noted sum, if any, and returns its content if keep is set.
func readSummed(path, want string, keep bool) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing", path)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h := sha256.New()
	var b []byte
	if keep {
		if b, err = io.ReadAll(file); err == nil {
			h.Write(b)
		}
	} else {
		_, err = io.Copy(h, file)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	if got := hex.EncodeToString(h.Sum(nil)); want != "" && !strings.EqualFold(got, want) {
		return nil, fmt.Errorf("%s is damaged: its SHA-256 is %s and the manifest says %s", path, got, want)
	}
	return b, nil
}

// open opens the kernel or the initramfs; it may have been replaced since the start, each is opened anew.
func (f *Files) open(name string) (*os.File, error) { return os.Open(filepath.Join(f.dir, name)) }

// padded is a file that ends with zeros up to a multiple of 4 bytes. Linux's EFI stub lines initrds up without a gap
// and the unpacker finds the next archive at such an offset only; loaders that hand over one whole pad by themselves.
// Owned by one request.
type padded struct {
	file   io.ReadSeeker
	length int64 // of the file
	offset int64
}

// aligned returns what is served of a file: an initramfs that needs zeros with these, everything else as it is, since a plain file goes
// to the network without a way through the program (sendfile(2)).
func aligned(f *os.File, name string) (io.ReadSeeker, error) {
	if name != fileInitramfs {
		return f, nil
	}
	info, err := f.Stat()
	if err != nil || info.Size()%4 == 0 {
		return f, err
	}
	return newPadded(f)
}

func newPadded(file io.ReadSeeker) (*padded, error) {
	length, err := file.Seek(0, io.SeekEnd)
	return &padded{file: file, length: length, offset: length}, err
}

// end is the length with the zeros.
func (p *padded) end() int64 { return (p.length + 3) &^ 3 }

func (p *padded) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.offset
	case io.SeekEnd:
		offset += p.end()
	}
	if offset < 0 {
		return 0, errors.New("seek before the begin of a boot file")
	}
	p.offset = offset
	_, err := p.file.Seek(min(offset, p.length), io.SeekStart)
	return offset, err
}

func (p *padded) Read(b []byte) (int, error) {
	if p.offset >= p.end() {
		return 0, io.EOF
	}
	if p.offset >= p.length {
		n := min(int64(len(b)), p.end()-p.offset)
		clear(b[:n])
		p.offset += n
		return int(n), nil
	}
	n, err := p.file.Read(b)
	p.offset += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}
