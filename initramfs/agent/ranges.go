package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"seedbed/appliance/job"
	"seedbed/images"
)

// fetchRanges fetches byte ranges of a layer in one request (RFC 9110 §14.2): one message for the hashes of 64 tiles. The
// caller checks what it gets.
func (d *deployment) fetchRanges(ctx context.Context, r images.Ref, ranges []images.Extent) (parts [][]byte, err error) {
	err = d.a.retry(ctx, "send tile hashes of the image", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		ask := http.Header{"Range": {rangeHeader(ranges)}}
		header, b, status, err := d.a.client.ask(ctx, http.MethodGet, job.PathLayer+r.Digest.String(), ask, nil, r.Length+maxAnswer)
		if err != nil {
			return err
		}
		if parts, err = splitRanges(header, status, b, ranges); err != nil {
			return fmt.Errorf("ranges of layer %s: %w", r.Digest.Short(), err)
		}
		return nil
	})
	return parts, err
}

func rangeHeader(ranges []images.Extent) string {
	var b strings.Builder
	for i, e := range ranges {
		fmt.Fprintf(&b, "%s%d-%d", []string{"bytes=", ","}[min(i, 1)], e.Offset, e.End()-1)
	}
	return b.String()
}

// splitRanges takes the ranges out of an answer: the whole layer, one range, or several as multipart/byteranges
// (RFC 9110 §14.6), in the order asked for.
func splitRanges(header http.Header, status int, b []byte, ranges []images.Extent) (parts [][]byte, err error) {
	if status == http.StatusOK {
		for _, e := range ranges {
			if e.End() > int64(len(b)) {
				return nil, fmt.Errorf("%d bytes in place of at least %d", len(b), e.End())
			}
			parts = append(parts, b[e.Offset:e.End()])
		}
		return parts, nil
	}
	if len(ranges) == 1 {
		parts = [][]byte{b}
	} else {
		_, params, err := mime.ParseMediaType(header.Get("Content-Type"))
		if err != nil || params["boundary"] == "" {
			return nil, fmt.Errorf("an answer of type %q to %d ranges", header.Get("Content-Type"), len(ranges))
		}
		for m := multipart.NewReader(bytes.NewReader(b), params["boundary"]); ; {
			p, err := m.NextRawPart()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			part, err := io.ReadAll(p)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
	}
	if len(parts) != len(ranges) {
		return nil, fmt.Errorf("%d of them in place of %d", len(parts), len(ranges))
	}
	for i, e := range ranges {
		if int64(len(parts[i])) != e.Length {
			return nil, fmt.Errorf("%d bytes in place of %d", len(parts[i]), e.Length)
		}
	}
	return parts, nil
}
