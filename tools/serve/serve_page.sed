# serve_page.html as strings of C, one a line.
s/\\/\\\\/g
s/"/\\"/g
s/.*/    "&\\n",/
