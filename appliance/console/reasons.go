package console

import "seedbed/appliance/job"

// errorTexts say what went wrong and what to do, by the codes of jobs: of agents, and of what the appliance refuses to them. A reason
// whose sentence is translated itself says more, see plain.
var errorTexts = map[string]string{
	job.CodeNoDisk: refusalTexts[job.CodeNoDisk], job.CodeTooSmall: refusalTexts[job.CodeTooSmall], job.CodeAmbiguousDisk: refusalTexts[job.CodeAmbiguousDisk],
	job.CodeSectorSize: refusalTexts[job.CodeSectorSize],
	"disk-busy":        text("The disk is in use by an array or another program. Restart the machine and try again."),
	"disk-open":        text("The disk cannot be opened. Check the disk and its cable, and try again."),
	"verify-error":     text("What was read back from the disk is not what was written. Replace the disk if it happens again."),
	"keep-refused":     text("The disk does not have the partitions that are to be kept. Deploy again and keep none, or put in the disk that has them."),
	"swarm-error":      text("The image could not be fetched from anybody. Check the network between the machines and the appliance, and try again."),
	"image-error":      text("The image on the appliance is damaged or was removed. Verify it on the page Images."),
	"appliance-error":  text("The appliance did not answer. Check whether it runs and can be reached, and try again."),
	"frame-refused":    text("The appliance could not keep the old partition table. Check its disk space, and try again."),
	"receipt-refused":  text("The appliance did not accept the proof of what is on the disk. Try again; the log of the machine says more."),
	"job-wrong":        text("The job of the appliance cannot be carried out. Give the appliance and its initramfs the same version."),
	"receipt-unsigned": text("What countersigned the receipt is not this site. Look for another appliance on the network."),
	"unknown-kind":     text("The agent does not know this kind of job. Give the appliance a newer initramfs."),
	"damaged":          text("The disk is not as its image has it; nothing was written. Order a repair of the machine."),
	"wipe-error":       text("The disk returned other bytes than zeros after it was wiped: what was on it may be there still. Destroy it."),
	"disk-error":       text("The disk or its cable is faulty. Replace it and order the job again."),
	"source-error":     text("The disk could not be captured; nothing was written. The log of the machine says more."),
	"source-dirty":     text("A file system of the disk was not shut down cleanly. Put it right and capture again, or copy it whole."),
	"source-unknown":   text("A file system of the disk has features that are not known here. Copy it whole."),
	"source-encrypted": text("A partition of the disk is encrypted. Decrypt it and capture again, or allow it to be copied whole."),
	"tiles-missing":    text("The appliance did not keep what the machine sent, though the disk was read several times. Check the disk of the appliance."),
	"repository-full":  text("The appliance has no room left for the image. Remove images that nobody needs, then capture again."),
	"capture-expired":  text("The appliance gave up a capture of which nothing came for long. Capture again: what has arrived is kept."),
	"capture-busy":     text("Another capture makes this version. Wait for it, or choose another version."),
	"image-exists":     text("The version exists already, and versions never change. Choose another version."),
	"tile-wrong":       text("What the machine sent was not what it read. If it happens again, check its memory."),
	"spec-wrong":       text("The machine described its disk in a way that contradicts itself. Give the appliance and its initramfs the same version."),
}

// reason says why a job failed, is paused or waits, in the visit's language.
func (v *visit) reason(code, sentence string) string {
	if general := errorTexts[code]; general != "" {
		return v.plain(sentence, general)
	}
	return v.waits(code, sentence)
}
