"""What the application is made of besides its own code: locks, licences, bill of materials."""
