package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/capture"
)

// ImageOrder asks for an image of a disk.
type ImageOrder struct {
	// Path is absolute: of a disk, a raw file, its first volume, or a virtual machine's disk.
	Path    string `json:"path"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // empty is the next whole number
	// Compress is "zstd" (also if empty), "lz4" or "none"; a level may follow: "zstd:3".
	Compress string `json:"compress,omitempty"`
	// SectorLength is the logical sector of a disk file in bytes; 0 is what its table says, else 512.
	SectorLength int `json:"sector_length,omitempty"`
	// PieceLength is a power of two in bytes; 0 follows from the size.
	PieceLength int64 `json:"piece_length,omitempty"`
	// Partitions are the numbers of those to capture; none is all.
	Partitions []int `json:"partitions,omitempty"`
	// Full copies file systems whole that cannot be mapped safely (dirty, hibernated): all, or those of FullPartitions.
	Full           bool  `json:"full,omitempty"`
	FullPartitions []int `json:"full_partitions,omitempty"`
	// KeepContents keeps page files, hibernation files and swap space.
	KeepContents bool `json:"keep_contents,omitempty"`
	// RefuseEncrypted refuses what can only be copied in full: encrypted partitions, file systems without a map.
	RefuseEncrypted bool `json:"refuse_encrypted,omitempty"`
	// TrustSource takes the content of an earlier image of the same file, if that has not changed since, without reading it.
	TrustSource bool `json:"trust_source,omitempty"`
	// Live takes a disk that is mounted for writing as it is.
	Live bool `json:"live,omitempty"`
}

// Added says what was done for a new image.
type Added struct {
	Format string `json:"format"` // of the source: "disk", "raw", "volumes", "qcow2", ...
	// SourceRead is false where the content of an earlier image was taken over, as asked; From then names it.
	SourceRead bool   `json:"source_read"`
	From       string `json:"from,omitempty"`
	// UsedLength are bytes in use, DataLength and ZeroLength those of tiles with content and of tiles that are zero.
	UsedLength int64 `json:"used_length"`
	DataLength int64 `json:"data_length"`
	ZeroLength int64 `json:"zero_length"`
	// NewTiles were not in the repository, and take NewLength bytes there.
	NewTiles  int64             `json:"new_tiles"`
	NewLength int64             `json:"new_length"`
	Dropped   []capture.Dropped `json:"dropped,omitempty"`
}

// ImageListing is one version of an image.
type ImageListing struct {
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Digest     images.Digest `json:"digest"`
	Problem    string        `json:"problem,omitempty"`
	Created    time.Time     `json:"created,omitzero"`
	DiskLength int64         `json:"disk_length"` // bytes
	UsedLength int64         `json:"used_length"` // bytes
	// EncodedLength are the encoded bytes of the distinct data tiles, shared with other images or not.
	EncodedLength int64 `json:"encoded_length"`
	Partitions    int   `json:"partitions"`
	// Open is set where stock BitTorrent clients may have the image.
	Open *OpenState `json:"open,omitempty"`
}

// ImageDetail is everything about an image but its content.
type ImageDetail struct {
	Digest   images.Digest    `json:"digest"`
	InfoHash images.InfoHash  `json:"info_hash"`
	Signed   bool             `json:"signed"` // by this site's key
	Manifest *images.Manifest `json:"manifest"`
	// EncodedLength are the encoded bytes of the distinct data tiles: one image of traffic.
	EncodedLength int64 `json:"encoded_length"`
	// Warnings are sentences from the capture.
	Warnings []string `json:"warnings,omitempty"`
	// Open is set where stock BitTorrent clients may have the image.
	Open *OpenState `json:"open,omitempty"`
	// Added is set in the answer to the order for the image.
	Added *Added `json:"added,omitempty"`
}

// Progress says how far a long operation is, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Images are the operations on images. Safe for concurrent use; progress may be nil, is called often, one call at a time.
type Images interface {
	Disks
	Upkeep
	Opening
	List(ctx context.Context) ([]ImageListing, error)
	Show(ctx context.Context, ref string) (*ImageDetail, error)
	Add(ctx context.Context, o ImageOrder, progress func(Progress)) (*ImageDetail, error)
}

// Line is one line of the answer to a long operation: progress, and at last either a problem or the end.
type Line struct {
	Progress *Progress    `json:"progress,omitempty"`
	Problem  *job.Problem `json:"problem,omitempty"`
	// Result is what the operation returned, if it returns something. It comes with End.
	Result json.RawMessage `json:"result,omitempty"`
	End    bool            `json:"end,omitempty"`
}

// Operator returns the handler of the local socket. Whoever can open the socket may do everything.
func Operator(f *fleet.Fleet, lib Images, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	on := func(pattern string, e endpoint) { mux.Handle(pattern, handle(log, e)) }
	on("GET /v1/images", func(_ http.ResponseWriter, r *http.Request) (any, error) { return list(lib.List(r.Context())) })
	on("GET /v1/images/{ref}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return lib.Show(r.Context(), r.PathValue("ref"))
	})
	mux.HandleFunc("POST /v1/images", func(w http.ResponseWriter, r *http.Request) {
		stream(w, func(progress func(Progress)) (any, error) {
			o, err := read[ImageOrder](w, r, maxOrder)
			if err != nil {
				return nil, err
			}
			return lib.Add(r.Context(), o, progress)
		})
	})
	serveDisks(mux, lib, log)
	serveUpkeep(mux, lib, log)
	serveOpening(mux, lib, log)
	on("GET /v1/machines", func(http.ResponseWriter, *http.Request) (any, error) { return list(f.Machines(), nil) })
	on("POST /v1/machines/{name}/admit", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return f.Admit(r.Context(), r.PathValue("name"))
	})
	on("GET /v1/deployments", func(http.ResponseWriter, *http.Request) (any, error) { return list(f.Deployments(), nil) })
	on("POST /v1/deployments", func(w http.ResponseWriter, r *http.Request) (any, error) {
		o, err := read[fleet.Order](w, r, maxOrder)
		if err != nil {
			return nil, err
		}
		return f.Deploy(r.Context(), o)
	})
	on("POST /v1/captures", func(w http.ResponseWriter, r *http.Request) (any, error) {
		o, err := read[fleet.CaptureOrder](w, r, maxOrder)
		if err != nil {
			return nil, err
		}
		return f.Capture(r.Context(), o)
	})
	on("POST /v1/deployments/{id}/close", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, f.CloseDeployment(r.Context(), r.PathValue("id"))
	})
	on("GET /v1/jobs", func(http.ResponseWriter, *http.Request) (any, error) { return list(f.Jobs(), nil) })
	on("POST /v1/jobs/{id}/{verb}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, operate(f, r)
	})
	on("GET /v1/events", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		after, err := number(r, "after", 0)
		if err != nil {
			return nil, err
		}
		limit, err := number(r, "limit", 1000)
		if err != nil {
			return nil, err
		}
		return list(f.Events(r.Context(), fleet.EventQuery{After: after, Limit: int(min(limit, 10000))}))
	})
	return mux
}

// maxOrder bounds an operator's request in bytes: a deployment to some thousand machines by name.
const maxOrder = 1 << 20

// list makes an empty list of nil, so that its JSON is [] and not null.
func list[T any](l []T, err error) ([]T, error) {
	if l == nil {
		l = []T{}
	}
	return l, err
}

func operate(f *fleet.Fleet, r *http.Request) error {
	id := r.PathValue("id")
	switch verb := r.PathValue("verb"); verb {
	case "cancel":
		return f.Cancel(r.Context(), id)
	case "pause":
		return f.Pause(r.Context(), id)
	case "resume":
		return f.Resume(r.Context(), id)
	default:
		return &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("a job can be cancelled, paused and resumed; %q is none of these", verb)}
	}
}

func number(r *http.Request, name string, otherwise int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("%s must be a whole number from 0, not %q", name, s)}
	}
	return n, nil
}

// stream runs a long operation and sends a Line for each step.
func stream(w http.ResponseWriter, work func(progress func(Progress)) (any, error)) {
	out := json.NewEncoder(w)
	send := func(l Line) {
		if out.Encode(l) == nil { // a caller that is gone cancels the request's context, which ends the work
			http.NewResponseController(w).Flush()
		}
	}
	var last time.Time
	begin := func() {
		if last.IsZero() {
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		last = time.Now()
	}
	result, err := work(func(p Progress) {
		if time.Since(last) < progressEvery && p.Done < p.Total {
			return
		}
		begin()
		send(Line{Progress: &p})
	})
	begin()
	end := Line{End: true}
	if err == nil && result != nil {
		end.Result, err = json.Marshal(result)
	}
	if err != nil {
		p := problemOf(err)
		send(Line{Problem: &p})
		return
	}
	send(end)
}

// progressEvery bounds how often progress is sent.
const progressEvery = 200 * time.Millisecond
