package api

import (
	"bytes"
	"encoding/hex"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"seedbed/images"
)

// held is the answer to a request, which waits for its end: its ETag follows from all of it. What is refused and what lasts go through
// as they come. Owned by the request.
type held struct {
	http.ResponseWriter
	read    bool // the request changes nothing
	none    string
	status  int // 0: not begun
	through bool
	body    bytes.Buffer
}

func hold(w http.ResponseWriter, r *http.Request) *held {
	return &held{ResponseWriter: w, read: r.Method == http.MethodGet || r.Method == http.MethodHead, none: strings.Join(r.Header.Values("If-None-Match"), ",")}
}

// lasts reports whether an answer of this kind has no end, or one that is far away.
func lasts(kind string) bool {
	name, _, _ := mime.ParseMediaType(kind)
	return name == "text/event-stream" || name == "application/x-ndjson" || name == diskKind
}

// Unwrap is for http.ResponseController.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (h *held) WriteHeader(status int) {
	if h.status != 0 {
		return
	}
	h.status = status
	if h.through = status/100 != 2 || status == http.StatusNoContent || lasts(h.Header().Get("Content-Type")); h.through {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if h.through {
		return h.ResponseWriter.Write(b)
	}
	return h.body.Write(b)
}

// Flush implements http.Flusher.
func (h *held) Flush() {
	h.WriteHeader(http.StatusOK)
	if h.through {
		_ = http.NewResponseController(h.ResponseWriter).Flush() // a caller that is gone, or a test's recorder
	}
}

// sumLength is that of the sum in an ETag, in bytes: that two answers of one record have the same is one of 2^64.
const sumLength = 8

// end sends the answer with its ETag: that of a record is its version and a sum, that of a list is weak, so that it is no version. Where the
// caller has just that already, it is told so (RFC 9110 §13.1.2).
func (h *held) end() {
	if h.status == 0 || h.through {
		return
	}
	sum := images.Sum(h.body.Bytes())
	header, tag := h.Header(), hex.EncodeToString(sum[:sumLength])
	version, isRecord := strings.CutPrefix(header.Get("ETag"), `"`)
	switch {
	case isRecord:
		tag = strings.TrimSuffix(version, `"`) + "-" + tag
		header.Set("ETag", strconv.Quote(tag))
	case h.read:
		header.Set("ETag", "W/"+strconv.Quote(tag))
	}
	if h.read && isAmong(tag, h.none) {
		header.Del("Content-Type")
		h.ResponseWriter.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Length", strconv.Itoa(h.body.Len()))
	h.ResponseWriter.WriteHeader(h.status)
	h.ResponseWriter.Write(h.body.Bytes()) // a caller that is gone needs no answer
}

// isAmong reports whether If-None-Match has a tag, by weak comparison (RFC 9110 §8.8.3.2). One that cannot be read has none.
func isAmong(tag, none string) bool {
	if strings.TrimSpace(none) == "*" {
		return true
	}
	tags, err := entityTags(none)
	for _, t := range tags {
		if err == nil && t.opaque == tag {
			return true
		}
	}
	return false
}
