package console

// imagesPage lists the images.
var imagesPage = &page{path: "/images", name: "images", nav: text("Images")}
