package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/disk/disktest"
)

// flipped returns b with one bit changed in the middle.
func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 8
	return b
}

// TestAFlippedBitOfTheDescriptionIsFoundBeforeAnythingIsWritten: whatever says how the image lies on the disk comes from the
// appliance with one wrong bit.
func TestAFlippedBitOfTheDescriptionIsFoundBeforeAnythingIsWritten(t *testing.T) {
	m := disktest.New(t).Manifest
	for what, ref := range map[string]images.Ref{
		"manifest": {}, "signature": {}, "frame": m.Frame.Region[0], "map": m.Partitions[1].Map, "piece layer": m.Partitions[1].PieceLayer,
	} {
		t.Run(what, func(t *testing.T) {
			img := *disktest.New(t)
			img.Layers = maps.Clone(img.Layers)
			switch what {
			case "manifest":
				img.Raw = flipped(img.Raw)
			case "signature":
			default:
				img.Layers[ref.Digest] = flipped(img.Layers[ref.Digest])
			}
			a, c := newApplianceOf(t, &img), newComputer(t)
			if what == "signature" {
				a.server.Config.Handler = wrongSignature(a.server.Config.Handler)
			}
			file, before := c.insert("vda", "SN1", disktest.DiskLength)
			ctx, cancel := context.WithCancel(t.Context())
			out, _ := c.boot(ctx, a)
			r := a.await(func(r job.Report) bool { return r.State == job.Failed })
			if r.Code != "image-error" || !strings.Contains(r.Reason, "test:1") || !strings.Contains(r.Reason, "Nothing was written") ||
				!strings.Contains(r.Reason, "image verify") {
				t.Errorf("failed with %s: %s", r.Code, r.Reason)
			}
			cancel()
			wait(t, out)
			if !bytes.Equal(bytesOf(t, file), before) {
				t.Error("the disk was written")
			}
		})
	}
}

// wrongSignature changes a bit of the manifest's signature on its way.
func wrongSignature(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, job.PathManifest) {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		b, _ := base64.StdEncoding.DecodeString(rec.Header().Get(job.SignatureHeader))
		w.Header().Set(job.SignatureHeader, base64.StdEncoding.EncodeToString(flipped(b)))
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// TestAFlippedBitOfTheTileLayerCostsATileAtMost: the layer only says what need not be fetched.
func TestAFlippedBitOfTheTileLayerCostsATileAtMost(t *testing.T) {
	img := *disktest.New(t)
	img.Layers = maps.Clone(img.Layers)
	for _, p := range img.Manifest.Partitions {
		if p.TileLayer.Length > 0 {
			img.Layers[p.TileLayer.Digest] = flipped(img.Layers[p.TileLayer.Digest])
		}
	}
	a, c := newApplianceOf(t, &img), newComputer(t)
	file, _ := c.insert("vda", "SN1", disktest.DiskLength)
	if err := os.WriteFile(file, img.Disk, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	img.Check(t, bytesOf(t, file), img.Disk)
	if n := a.seed.total(); n > int64(len(img.Manifest.Partitions))*images.TileLength {
		t.Errorf("%d bytes were fetched", n)
	}
}

// TestAFlippedBitOnTheDiskIsFoundBeforeTheTableIsWritten: the disk changes a bit of what was written. The job fails and says
// where; deploying again fetches that tile alone and mends the disk.
func TestAFlippedBitOnTheDiskIsFoundBeforeTheTableIsWritten(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	a.fresh = true
	file, _ := c.insert("vda", "SN1", disktest.DiskLength)
	l := a.img.Layout
	piece := l.Count() - 1
	for l.Data(piece).IsEmpty() {
		piece--
	}
	in := 0
	for n := range l.Data(piece).All() {
		in = n
	}
	at := l.DiskOffset(1) + l.WriteExtents(nil, piece, in, 1)[0].Offset + 5
	ill := &faultyDisk{computer: c, file: file, at: at}
	ctx, cancel := context.WithCancel(t.Context())
	out, _ := ill.boot(ctx, a)
	r := a.await(func(r job.Report) bool { return r.State == job.Failed })
	cancel()
	wait(t, out)
	e := l.Span(piece)
	if r.Code != "verify-error" || r.Phase != job.PhaseVerify || !strings.Contains(r.Reason, "partition 2") ||
		!strings.Contains(r.Reason, images.Extent{Offset: e.Offset, Length: e.Length}.String()) {
		t.Errorf("failed in %s with %s: %s", r.Phase, r.Code, r.Reason)
	}
	if b := bytesOf(t, file); !zeros(b[:512]) || bytes.Contains(b[:34*512], []byte("EFI PART")) || len(a.receipts) > 0 {
		t.Error("a disk with a wrong bit has a table, or a receipt")
	}
	a.startSeeder()
	a.mu.Lock()
	a.token, a.claimed, a.reports, a.seeds[0] = strings.Repeat("ab", 32), false, nil, a.seeder.Addr()
	a.mu.Unlock()
	out, _ = c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if n := a.seed.total(); n > images.TileLength {
		t.Errorf("%d bytes were fetched to mend one bit", n)
	}
	a.img.Check(t, bytesOf(t, file), bytesOf(t, file))
}

// faultyDisk flips a bit of the disk when the first flush of content has ended.
type faultyDisk struct {
	*computer
	file string
	at   int64
}

func (f *faultyDisk) Open(name string) (*disk.Device, error) {
	d, err := f.computer.Open(name)
	if err != nil {
		return nil, err
	}
	var wrote atomic.Bool
	d.Observe(func(c disk.Change) (func(), error) {
		if !c.Flush {
			if c.Bytes != nil && c.Offset <= f.at && f.at < c.Offset+c.Length {
				wrote.Store(true)
			}
			return func() {}, nil
		}
		return func() {
			if !wrote.Swap(false) {
				return
			}
			w, err := os.OpenFile(f.file, os.O_RDWR, 0)
			if err != nil {
				f.t.Error(err)
				return
			}
			defer w.Close()
			b := make([]byte, 1)
			if _, err := w.ReadAt(b, f.at); err != nil {
				f.t.Error(err)
			}
			b[0] ^= 2
			if _, err := w.WriteAt(b, f.at); err != nil {
				f.t.Error(err)
			}
		}, nil
	})
	return d, nil
}

// boot is that of computer, on this machine.
func (f *faultyDisk) boot(ctx context.Context, a *appliance) (<-chan result, *Screen) {
	return bootMachine(f.t, ctx, a, f, f.idle)
}
