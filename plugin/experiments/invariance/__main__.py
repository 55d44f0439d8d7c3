from .study_command import main

raise SystemExit(main())
