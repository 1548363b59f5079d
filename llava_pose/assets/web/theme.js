// Runs before anything is painted, so that the page never flashes in the other colours.
"use strict";
{
  const remembered = localStorage.getItem("llava-pose-theme");
  if (remembered) document.documentElement.dataset.theme = remembered;
}
