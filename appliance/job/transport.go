package job

// Transport says how a machine uses the network for a job's content. The zero value: no limits, no mark, cubic, the
// interface that the routes choose.
type Transport struct {
	// UploadLimit and DownloadLimit bound what the machine sends and receives, in bytes a second; 0 is no limit.
	UploadLimit   int64 `json:"upload_limit,omitempty"`
	DownloadLimit int64 `json:"download_limit,omitempty"`
	// DSCP marks the packets (RFC 2474), 0 to 63.
	DSCP int `json:"dscp,omitempty"`
	// Congestion names TCP's congestion control: "cubic", "bbr"; empty is cubic.
	Congestion string `json:"congestion,omitempty"`
	// AllNICs makes every network card that has an address take part, each as a peer of its own.
	AllNICs bool `json:"all_nics,omitempty"`
	// HashThreads decode and hash; 0 is one per processor, 4 at most.
	HashThreads int `json:"hash_threads,omitempty"`
}
