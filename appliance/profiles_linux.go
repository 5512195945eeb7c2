package main

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

// pathProfiles is where profiles are, in the form that `go tool pprof` reads.
const pathProfiles = "/debug/pprof/"

// withProfiles tells who may open the local socket, and nobody else, where the appliance's time and memory go; all else is for next.
func withProfiles(next http.Handler) http.Handler {
	profiles := http.NewServeMux()
	profiles.HandleFunc("GET "+pathProfiles, pprof.Index)
	profiles.HandleFunc("GET "+pathProfiles+"profile", pprof.Profile)
	profiles.HandleFunc("GET "+pathProfiles+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, pathProfiles) {
			profiles.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
