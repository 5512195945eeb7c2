// Package api is the appliance's HTTP interface: for the agents on machines over HTTPS, and for people and their programs
// over HTTPS and over a local socket.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/upload"
)

// statusOf maps the codes of refusals to HTTP; a code that is not here is a bad request.
var statusOf = map[string]int{
	fleet.CodeUnauthorised:   http.StatusUnauthorized,
	fleet.CodeTokenUnknown:   http.StatusForbidden,
	fleet.CodeTokenMissing:   http.StatusNotFound,
	fleet.CodeTokenUsed:      http.StatusForbidden,
	fleet.CodeTokenExpired:   http.StatusForbidden,
	fleet.CodeRevoked:        http.StatusForbidden,
	fleet.CodeMachineUnknown: http.StatusNotFound,
	fleet.CodeJobUnknown:     http.StatusNotFound,
	fleet.CodeImageUnknown:   http.StatusNotFound,

	fleet.CodeDeploymentUnknown: http.StatusNotFound,
	fleet.CodeGroupUnknown:      http.StatusNotFound,
	fleet.CodeUserUnknown:       http.StatusNotFound,
	fleet.CodeGroupExists:       http.StatusConflict,
	fleet.CodeUserExists:        http.StatusConflict,
	fleet.CodeForbidden:         http.StatusForbidden,
	fleet.CodeLogin:             http.StatusUnauthorized,
	fleet.CodeTooMany:           http.StatusTooManyRequests,
	fleet.CodeChanged:           http.StatusPreconditionFailed,
	codeNoSuchPath:              http.StatusNotFound,
	codeWrongMethod:             http.StatusMethodNotAllowed,
	codeWrongKind:               http.StatusUnsupportedMediaType,
	codeTooLarge:                http.StatusRequestEntityTooLarge,
	codeTooSlow:                 http.StatusRequestTimeout,

	fleet.CodeCodeUnknown:   http.StatusNotFound,
	fleet.CodeJobEnded:      http.StatusConflict,
	fleet.CodeClaimLost:     http.StatusConflict,
	fleet.CodeAmbiguous:     http.StatusConflict,
	fleet.CodeReceiptWrong:  http.StatusUnprocessableEntity,
	fleet.CodeVersionExists: http.StatusConflict,
	fleet.CodeCaptureBusy:   http.StatusConflict,
	fleet.CodeImageUsed:     http.StatusConflict,
	fleet.CodeMachineBusy:   http.StatusConflict,
	job.CodeCaptureExpired:  http.StatusNotFound,
	job.CodeTilesMissing:    http.StatusConflict,
	job.CodeRepositoryFull:  http.StatusInsufficientStorage,
	upload.CodeTileWrong:    http.StatusUnprocessableEntity,
	upload.CodeSpecWrong:    http.StatusUnprocessableEntity,
	upload.CodeVersionBusy:  http.StatusServiceUnavailable,
}

// codeInternal says that the appliance could not do what is its own to do; its log has more.
const codeInternal = "internal"

// problemOf makes the body of an error answer (RFC 9457).
func problemOf(err error) job.Problem {
	if r, ok := errors.AsType[*fleet.Refusal](err); ok {
		status := statusOf[r.Code]
		if status == 0 {
			status = http.StatusBadRequest
		}
		return job.Problem{Title: http.StatusText(status), Status: status, Detail: r.Detail, Code: r.Code}
	}
	return job.Problem{Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError,
		Detail: err.Error(), Code: codeInternal}
}

// octets are an answer that is sent as it is.
type octets []byte

// ranges are an answer of which the caller gets the byte ranges that it asked for.
type ranges struct{ io.ReadSeeker }

// endpoint answers one request; what it returns is sent as JSON, octets as they are, nil as 204.
type endpoint func(w http.ResponseWriter, r *http.Request) (any, error)

// handle makes an http.Handler of an endpoint.
func handle(log *slog.Logger, e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := e(w, r)
		if part, ok := answer.(ranges); ok && err == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", time.Time{}, part)
			return
		}
		if err == nil {
			reply(w, http.StatusOK, "application/json", answer)
			return
		}
		p := problemOf(err)
		switch {
		case r.Context().Err() != nil: // the caller went away
			log.Debug("request abandoned", "path", r.URL.Path, "peer", r.RemoteAddr)
		case p.Code == codeInternal:
			log.Error("request not answered", "path", r.URL.Path, "peer", r.RemoteAddr, "err", err)
		default:
			log.Warn("request refused", "path", r.URL.Path, "peer", r.RemoteAddr, "code", p.Code, "err", err)
		}
		reply(w, p.Status, "application/problem+json", p)
	})
}

// agentsHint ends the sentence about a request that no agent makes.
const agentsHint = "people and their programs ask below " + Path

// withProblems answers requests that nothing in a mux is for like all others that are refused.
func withProblems(mux *http.ServeMux, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := unknown(mux, w, r, agentsHint); err != nil {
			log.Debug("request refused", "path", r.URL.Path, "peer", r.RemoteAddr, "err", err)
			p := problemOf(err)
			reply(w, p.Status, "application/problem+json", p)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func reply(w http.ResponseWriter, status int, kind string, body any) {
	if body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b, ok := body.(octets)
	var err error
	if ok {
		kind = "application/octet-stream"
	} else {
		b, err = json.Marshal(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	w.Write(b) // a caller that is gone needs no answer
}

// read decodes a request's JSON of at most limit bytes.
func read[T any](w http.ResponseWriter, r *http.Request, limit int64) (v T, err error) {
	b, err := readAll(w, r, limit)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("the request cannot be read: %v", err)}
	}
	return v, nil
}

// readAll reads a body of at most limit bytes, which must come in at leastRate: a hello needs no certificate, and strangers would
// hold connections for ever.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	length := limit
	if r.ContentLength >= 0 {
		length = min(limit, r.ContentLength)
	}
	until := http.NewResponseController(w)
	_ = until.SetReadDeadline(time.Now().Add(bodyGrace + time.Duration(length/leastRate)*time.Second)) // a test's recorder has none
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil { // else the bound stays: the server throws away what has not come
		_ = until.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the machine's link may be at fault: an agent asks again after this status
		return nil, &fleet.Refusal{Code: codeTooSlow, Detail: fmt.Sprintf("the request came too slowly, %d bytes of it; send it again", len(b))}
	}
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return nil, &fleet.Refusal{Code: codeTooLarge, Detail: fmt.Sprintf("the request has more than the %d bytes that it may have", limit)}
	}
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("the request of at most %d bytes cannot be read: %v", limit, err)}
	}
	return b, nil
}
