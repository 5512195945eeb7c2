package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
	"seedbed/images"
)

// doings is what the shelf is asked to do with its images. Safe for concurrent use.
type doings struct {
	mu sync.Mutex // guards what follows
	// verify is what a verification does, nil is that of a whole image.
	verify  func(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error)
	used    string // by whom removal is refused
	removed []string
	listed  int               // how often all images were
	added   map[string]string // content by "name:version"
}

// put has the shelf hold other images.
func (s *shelf) put(list []*fleet.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
}

// lists is how often all images were listed.
func (s *shelf) lists() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed
}

// listing is how List tells of an image, made up but for its names.
func (s *shelf) listing(i *fleet.Image) api.ImageListing {
	n := int64(1)
	if i.Manifest.Version == "2" {
		n = 2
	}
	return api.ImageListing{Name: i.Manifest.Name, Version: i.Manifest.Version, Digest: i.Digest, Created: time.Date(2026, 11, int(10+n), 9, 30, 0, 0, time.UTC),
		DiskLength: i.Manifest.DiskLength, UsedLength: 17e9 + n*12e8, EncodedLength: 9e9 + n*3e8, Partitions: 3}
}

// detail is how Show tells of an image.
func detail(i *fleet.Image) *api.ImageDetail {
	m := *i.Manifest
	m.Created, m.Firmware, m.Frame.Table = time.Date(2026, 11, 12, 9, 30, 0, 0, time.UTC).Unix(), []string{"uefi"}, "gpt"
	m.Partitions = []images.Partition{
		{Number: 1, Offset: 1 << 20, Length: 512 << 20, Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", Label: "EFI", FS: "fat32", MapKind: "used", UsedLength: 31e6, DataTiles: 30},
		{Number: 2, Offset: 513 << 20, Length: 59 << 30, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", FS: "ext4", MapKind: "used", UsedLength: 18e9, DataTiles: 18000, Dropped: []string{"/var/cache"}},
		{Number: 3, Offset: 60 << 30, Length: 4 << 30, Type: "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", FS: "swap", MapKind: "header", UsedLength: 4096, DataTiles: 1, Dropped: []string{"swap space"}},
	}
	return &api.ImageDetail{Digest: i.Digest, Manifest: &m, Signed: true, EncodedLength: 9.6e9}
}

// operating is what a console has of its appliance beside fleet and images.
type operating struct {
	works *Works
	dir   string // of what is uploaded
	// report is what a look at the network finds; nil waits for one.
	report chan *doctor.Report
}

func newOperating(t testing.TB) operating {
	o := operating{NewWorks(), t.TempDir(), make(chan *doctor.Report, 10)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = o.works.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return o
}

func (o *operating) spool(r io.Reader, length int64) (string, func(), error) {
	if length > 1<<30 {
		return "", nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "the disk has more bytes than there is room for"}
	}
	f, err := os.CreateTemp(o.dir, "disk-*")
	if err != nil {
		return "", nil, err
	}
	_, err = io.Copy(f, r)
	return f.Name(), func() { os.Remove(f.Name()) }, errors.Join(err, f.Close())
}

func (o *operating) examine(ctx context.Context) (*doctor.Report, error) {
	select {
	case r := <-o.report:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *shelf) Usage(ctx context.Context, ref string) (*api.ImageUsage, error) {
	if _, err := s.Image(ctx, ref); err != nil {
		return nil, err
	}
	return &api.ImageUsage{DataLength: 18.2e9, EncodedLength: 9.1e9, Stored: 9.1e9, Own: 1.3e9, Packs: 71,
		Shared: []api.SharedTiles{{Image: "windows:1", Stored: 12e6}, {Image: "debian:1", Stored: 7.8e9}}}, nil
}

func (s *shelf) Diff(ctx context.Context, from, to string) (*api.ImageDiff, error) {
	for _, ref := range []string{from, to} {
		if _, err := s.Image(ctx, ref); err != nil {
			return nil, err
		}
	}
	return &api.ImageDiff{From: from, To: to, Partitions: []api.PartitionDiff{
		{Number: 1, Tiles: 3, Total: 120, Length: 3e6, Encoded: 1.2e6}, {Number: 2, Tiles: 4100, Total: 18000, Length: 4.2e9, Encoded: 1.9e9, ZeroTiles: 12}}}, nil
}

func (s *shelf) Verify(ctx context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
	s.mu.Lock()
	verify := s.verify
	s.mu.Unlock()
	if verify != nil {
		return verify(ctx, o, progress)
	}
	r := &api.VerifyReport{}
	for _, i := range s.list {
		if ref := i.Name(); o.Image == "" || o.Image == ref {
			r.Images = append(r.Images, api.VerifiedImage{Image: ref, Checked: 18e9})
		}
	}
	return r, nil
}

func (s *shelf) Remove(ctx context.Context, ref string) error {
	if _, err := s.Image(ctx, ref); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != "" {
		return &fleet.Refusal{Code: fleet.CodeImageUsed, Detail: fmt.Sprintf("image %s is used by %s", ref, s.used)}
	}
	s.removed = append(s.removed, ref)
	return nil
}

func (s *shelf) Prune(_ context.Context, o api.PruneOrder, _ func(api.Progress)) (*api.PruneReport, error) {
	return &api.PruneReport{DryRun: o.DryRun, Deleted: api.Amount{Objects: 3, Bytes: 4.1e9}, Marked: api.Amount{Objects: 2, Bytes: 880e6}, Next: time.Now().Add(26 * time.Hour)}, nil
}

func (s *shelf) Export(ctx context.Context, ref string, _ int64, out api.DiskOutput) error {
	if _, err := s.Image(ctx, ref); err != nil {
		return err
	}
	if err := out.Begin(exportLength, 8); err != nil {
		return err
	}
	return out.Write(4096, []byte("the disk"))
}

// exportLength is that of exported disks in bytes.
const exportLength = 1 << 20

func (s *shelf) Add(ctx context.Context, o api.ImageOrder, progress func(api.Progress)) (*api.ImageDetail, error) {
	b, err := os.ReadFile(o.Path)
	if err != nil {
		return nil, err
	}
	if o.Version == "" {
		o.Version = "1"
	}
	progress(api.Progress{Done: int64(len(b)), Total: int64(len(b))})
	s.mu.Lock()
	if s.added == nil {
		s.added = map[string]string{}
	}
	s.added[o.Name+":"+o.Version] = string(b)
	s.mu.Unlock()
	d, err := s.Show(ctx, "debian:2")
	if err != nil {
		return nil, err
	}
	m := *d.Manifest
	m.Name, m.Version = o.Name, o.Version
	return &api.ImageDetail{Digest: d.Digest, Manifest: &m}, nil
}
