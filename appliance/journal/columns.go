package journal

// Column of the table: its name in the header, and what its cells say.
type Column struct {
	Name string
	// Means is a sentence for people. Text says that the cells may hold what machines or people wrote.
	Means string
	text  bool
}

// Columns are those of the table, in their order. New ones come at the end.
var Columns = []Column{
	{Name: "time", Means: "when the job ended, else when its machine reported last or when it was ordered; UTC, RFC 3339"},
	{Name: "machine", Means: "ID of the machine", text: true},
	{Name: "name", Means: "its name, empty where the machine was removed", text: true},
	{Name: "deployment", Means: "ID of the deployment, empty where the job belongs to none", text: true},
	{Name: "job", Means: "ID of the job", text: true},
	{Name: "kind", Means: "deploy, capture, verify, repair, wipe or inventory", text: true},
	{Name: "image", Means: "name:version of the image", text: true},
	{Name: "image_digest", Means: "SHA-256 of the image's manifest, which names the roots of its partitions", text: true},
	{Name: "partition", Means: "number of the partition; empty is the row of the job as a whole, which each job has once, before those of its partitions", text: true},
	{Name: "state", Means: "of the job: waiting, claimed, running, paused, succeeded, failed, cancelled", text: true},
	{Name: "from_appliance", Means: "bytes that came from appliances, in the row of the job alone, so that a sum over the column counts each once"},
	{Name: "from_peers", Means: "bytes that came from other machines, counted alike; those of seed nodes are in from_seeds"},
	{Name: "from_seeds", Means: "bytes that came from seed nodes, counted alike"},
	{Name: "to_peers", Means: "bytes that the machine sent to others, counted alike"},
	{Name: "written", Means: "bytes written to the disk, in the row of the job alone"},
	{Name: "rate", Means: "bytes made right on the disk a second (of a capture or verify read, of a wipe wiped), from the first report at work to the end; what was right before does not count; in the row of the job alone"},
	{Name: "hash", Means: "of a partition the root over what was read back from the disk, as the signed receipt has it: the image's manifest has the same; " +
		"of the job the SHA-256 of the partition table as written, of a capture of the manifest made; empty where nothing is proven", text: true},
	{Name: "verified", Means: "yes: all of it was read back and is right; partly, no: some of it, or none, was read back, as was ordered, or samples of a wipe; kept: the partition was left as it was; empty where the job has no receipt", text: true},
	{Name: "error_class", Means: "short fixed word of why the job failed, is paused or was cancelled", text: true},
	{Name: "text", Means: "the same as a sentence, or what was found or done", text: true},
}
