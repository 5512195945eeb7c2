package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/bencode"
	"seedbed/images/capture"
	"seedbed/images/layout"
	"seedbed/images/repository"
	"seedbed/images/tile"
	"seedbed/images/torrent"
)

// content is an image in a repository and what else the contenders need of it. It crosses to child processes as JSON.
type content struct {
	Folder   string
	Image    images.Digest
	InfoHash images.InfoHash
	// Length is that of the disk, DataLength that of the tiles that travel, decoded, and Encoded what they travel as; bytes.
	Length, DataLength, Encoded int64
}

// raw is the file of the disk that was captured.
func (c *content) raw() string { return filepath.Join(c.Folder, "disk.img") }

// torrent is the v1 torrent of that file, for the contenders.
func (c *content) torrent() string { return filepath.Join(c.Folder, "disk.torrent") }

// wantedPiece is the length of all contenders' pieces.
const wantedPiece = images.MinPieceLength

// makeNoise makes an image of a disk of the length that no codec shortens.
func makeNoise(ctx context.Context, folder string, length int64) (*content, error) {
	c := &content{Folder: folder}
	f, err := os.Create(c.raw())
	if err != nil {
		return nil, err
	}
	_, err = io.CopyN(f, mathrand.NewChaCha8([32]byte{1}), length)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return c, c.capture(ctx, tile.Zstd, 0)
}

// makeSystem makes an image, with zstd of the level, of an ext4 file system that holds a tar of this host's /usr: where it is
// longer, a sample of some length from all over it.
func makeSystem(ctx context.Context, folder string, length int64, level int) (*content, error) {
	c := &content{Folder: folder}
	root := filepath.Join(folder, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	used, err := sampleTar(ctx, filepath.Join(root, "usr.tar"), "/usr", length)
	if err != nil {
		return nil, err
	}
	if err := truncate(c.raw(), (used+used/8+(64<<20))>>20<<20); err != nil {
		return nil, err
	}
	if err := tool(ctx, "e2fsprogs", "mkfs.ext4", "-q", "-F", "-m", "0", "-d", root, c.raw()); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	return c, c.capture(ctx, tile.Zstd, level)
}

// sampleUnit is what a sample of a tar is made of, in bytes: whole files would leave out the long ones.
const sampleUnit = 1 << 20

// sampleTar writes units of a folder's tar to a file, evenly spaced so that they make some length in all, and returns how
// many bytes it wrote.
func sampleTar(ctx context.Context, to, from string, length int64) (written int64, err error) {
	var all int64
	err = filepath.WalkDir(from, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return ctx.Err() // gone, or no file
		}
		if info, err := e.Info(); err == nil {
			all += info.Size()
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	if all == 0 {
		return 0, fmt.Errorf("%s holds no files to make a tar of", from)
	}
	share := min(1, float64(length)/float64(all))
	f, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tar := exec.CommandContext(ctx, "tar", "-C", filepath.Dir(from), "--ignore-failed-read", "-cf", "-", filepath.Base(from))
	stream, err := tar.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := tar.Start(); err != nil {
		return 0, err
	}
	unit := make([]byte, sampleUnit)
	for passed := int64(0); ; {
		n, end := io.ReadFull(stream, unit)
		if passed += int64(n); float64(written) < float64(passed)*share {
			n, err = f.Write(unit[:n])
			written += int64(n)
		}
		if end != nil || err != nil {
			break
		}
	}
	if err != nil {
		stream.Close() // tar would wait for somebody who reads
	}
	var exit *exec.ExitError
	if e := tar.Wait(); err == nil && e != nil && !(errors.As(e, &exit) && exit.ExitCode() == 1) { // 1: a file changed as it was read
		err = fmt.Errorf("tar of %s: %w", from, e)
	}
	return written, err
}

// capture makes the image of the raw file in a repository, and the torrent.
func (c *content) capture(ctx context.Context, codec tile.Codec, level int) (err error) {
	identity, err := site.Open(filepath.Join(c.Folder, "site"))
	if err != nil {
		return err
	}
	repo, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	session, err := repo.Begin(ctx, repository.SessionConfig{Name: "bench", Sign: identity.SignManifest})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	disk, err := os.Open(c.raw())
	if err != nil {
		return err
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return err
	}
	c.Length = info.Size()
	result, err := capture.Disk(ctx, disk, c.Length, 512, session, capture.Options{Codec: codec, Level: level, PieceLength: wantedPiece, Created: time.Unix(1e9, 0)})
	if err != nil {
		return err
	}
	c.Image = result.Image.Digest
	reader, err := repo.OpenImage(ctx, c.Image)
	if err != nil {
		return err
	}
	c.DataLength, c.Encoded = reader.Layout().DataLength(), reader.EncodedLength()
	info2, err := torrent.FromManifest(reader.Image().Manifest)
	if err != nil {
		return err
	}
	c.InfoHash = info2.InfoHash
	if err := c.export(ctx, repo, reader.Image()); err != nil {
		return err
	}
	return c.writeTorrent()
}

// seedCopy ends the names of the seed node's repository and its spool.
const seedCopy = "-of-seed"

// open opens the repository, or with seedCopy the seed node's.
func (c *content) open(ctx context.Context, which string) (*repository.Repository, error) {
	bucket, err := repository.OpenDir(filepath.Join(c.Folder, "repository"+which))
	if err != nil {
		return nil, err
	}
	return repository.Open(ctx, bucket, repository.Config{Spool: filepath.Join(c.Folder, "spool"+which)})
}

// export writes what a machine gets of an image before its tiles: the manifest, the maps and the piece layers.
func (c *content) export(ctx context.Context, repo *repository.Repository, image *repository.Image) error {
	if err := os.WriteFile(filepath.Join(c.Folder, "manifest"), image.Raw, 0o600); err != nil {
		return err
	}
	_, err := layout.Load(image.Manifest, func(ref images.Ref) ([]byte, error) {
		b, err := repo.Layer(ctx, ref.Digest)
		if err != nil {
			return nil, err
		}
		return b, os.WriteFile(filepath.Join(c.Folder, ref.Digest.String()), b, 0o600)
	})
	return err
}

// layout reads what export wrote.
func (c *content) layout() (*layout.Layout, error) {
	raw, err := os.ReadFile(filepath.Join(c.Folder, "manifest"))
	if err != nil {
		return nil, err
	}
	m, err := images.DecodeManifest(raw)
	if err != nil {
		return nil, err
	}
	return layout.Load(m, func(ref images.Ref) ([]byte, error) {
		return os.ReadFile(filepath.Join(c.Folder, ref.Digest.String()))
	})
}

// writeTorrent makes the v1 torrent (BEP 3) of the raw file.
func (c *content) writeTorrent() error {
	f, err := os.Open(c.raw())
	if err != nil {
		return err
	}
	defer f.Close()
	var pieces []byte
	for b := make([]byte, wantedPiece); ; {
		n, err := io.ReadFull(f, b)
		if n == 0 {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
		sum := sha1.Sum(b[:n])
		pieces = append(pieces, sum[:]...)
	}
	info := map[string]any{"name": filepath.Base(c.raw()), "length": c.Length, "piece length": int64(wantedPiece), "pieces": string(pieces)}
	return os.WriteFile(c.torrent(), bencode.Encode(map[string]any{"info": info}), 0o600)
}

// compare returns an error if the file does not hold the content of the image: used bytes in tiles of data.
func (c *content) compare(name string) error {
	shape, err := c.layout()
	if err != nil {
		return err
	}
	want, err := os.Open(c.raw())
	if err != nil {
		return err
	}
	defer want.Close()
	got, err := os.Open(name)
	if err != nil {
		return err
	}
	defer got.Close()
	a, b := make([]byte, images.TileLength), make([]byte, images.TileLength)
	for piece := range shape.Count() {
		span := shape.Span(piece)
		for t := range shape.Data(piece).All() {
			offset := span.Offset + int64(t)*images.TileLength
			for _, one := range []struct {
				f *os.File
				b []byte
			}{{want, a}, {got, b}} {
				one.b = one.b[:shape.TileLength(piece, t)]
				if _, err := one.f.ReadAt(one.b, shape.DiskOffset(span.Partition)+offset); err != nil {
					return fmt.Errorf("compare %s: %w", filepath.Base(name), err)
				}
				shape.Mask(span.Partition, one.b, offset)
			}
			if n := shape.TileLength(piece, t); !bytes.Equal(a[:n], b[:n]) {
				return fmt.Errorf("%s differs from the image in tile %d of piece %d", filepath.Base(name), t, piece)
			}
		}
	}
	return nil
}
